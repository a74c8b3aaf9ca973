"""Where each scenario of the original is tested, or with which feature it will be. Names are the original's.

A name that ends in `*` stands for several. This map is held to the test files: it cannot rot.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent

UNDER_THEIR_NAMES = {
    "agent/test_agent": """
        agent_config_deserializes_without_tool_profile_field child_rejects_nested_task_requests_without_recursing
        deferred_tool_choice_reaches_provider_request_unchanged
        empty_assistant_response_preserves_committed_tool_results
        hidden_tool_profile_filters_deferred_tools_before_provider_request
        hidden_tool_profile_tool_choice_falls_back_to_auto pending_turn_tracks_latest_usage_without_affecting_message
        run_options_cancelled_run_stops_before_provider_request run_options_model_budget_blocks_follow_up_round
        send_failure_rolls_history_back_and_emits_run_failed send_retries_transient_provider_error_before_streaming
        send_returns_final_message_after_tool_execution send_streamed_text_turn_emits_events_and_commits_history
        set_reasoning_updates_the_configured_reasoning_for_future_turns snapshot_progresses_during_streaming
        task_tool_wraps_child_failure_and_parent_continues text_turn_commits_after_message_stop
        tool_profile_respects_allowlist_and_hidden_overrides tool_spec_deserialization_defaults_loading_policy
        tool_use_turn_emits_ready_event_and_parses_call
        wait_handle_targets_the_generation_active_when_the_future_is_created
    """,
    "agent/test_background": """
        background_run_tool_starts_task_and_continues_the_turn
        check_background_reports_single_task_and_lists_all_tasks
        completed_background_results_are_batched_in_completion_order
        completed_background_results_are_injected_on_next_send
        drained_background_notifications_are_requeued_after_failed_run
        failed_background_results_surface_in_snapshot_events_and_notifications
        snapshot_updates_when_background_task_finishes tool_authorizer_can_deny_background_run
    """,
    "agent/test_budgets": """
        a_stop_and_a_crossed_budget_together_report_the_stop a_turn_that_runs_to_completion_reports_nothing
        absent_token_budget_ignores_reported_usage delegated_subagent_usage_counts_against_the_parent_token_budget
        delegating_with_the_budget_already_spent_fails_the_delegation
        parallel_tool_context_can_spawn_subagents_from_public_api parent_cancellation_reaches_the_delegated_subagent
        run_options_stop_after_tool_round_commits_transcript_and_halts
        token_budget_stops_gracefully_after_the_round_that_crosses_it
    """,
    "agent/test_compaction": """
        a_lone_user_turn_is_never_replaced_by_a_summary_of_itself
        a_turn_pinned_by_a_tool_result_is_summarized_instead_of_refused
        accumulating_files_keeps_first_seen_order_and_drops_repeats auto_compaction_degrades_gracefully_on_failure
        auto_compaction_persists_transcript_and_rewrites_history carried_files_reads_the_newest_summary_only
        compact_tool_compacts_history_and_continues compacted_summaries_are_searchable
        compaction_events_appear_in_session_stream_and_session_continues
        fifty_turn_session_with_multiple_compaction_cycles files_touched_accumulate_across_successive_compactions
        local_summary_projection_excludes_thinking_from_full_transcript_json
        micro_compaction_only_rewrites_old_tool_results_in_requests resumed_session_continues_after_compaction
        task_survives_auto_compaction
    """,
    "test_errors": """
        budget_exceeded_is_terminal display_mentions_missing_models display_mentions_missing_provider
        empty_assistant_response_has_clear_display_text permanent_provider_error_is_terminal
        persistence_io_error_is_degraded source_is_exposed_for_wrapped_errors
        transient_provider_error_is_retryable transient_runtime_error_helper_matches_provider_retry_policy
    """,
    "tools/test_files": """
        every_split_file_tool_enforces_its_workspace_policy
        files_tool_aborts_without_partial_mutation_on_validation_error
        files_tool_can_stage_create_then_read_in_one_call files_tool_can_update_existing_files
        files_tool_list_rejects_symlink_escape_during_recursive_traversal
        files_tool_lists_and_searches_with_staged_state files_tool_metadata_marks_local_mutation
        files_tool_read_does_not_emit_file_op_progress
        files_tool_search_handles_symlink_loops files_tool_search_rejects_symlink_escape_during_recursive_traversal
        files_tool_set_emits_tool_progress_with_file_op_metadata legacy_batched_replace_keeps_its_first_match_contract
        mutating_operations_stay_exclusive
        read_only_operations_opt_into_parallel_execution
        recursive_limits_short_circuit_before_unvisited_descendants
    """,
    "event/test_events": "all_session_event_variants_serialize_with_type_tag",
    "sandbox/test_executor": """
        allowlisted_environment_is_enforced caps_stdout_and_stderr_independently
        targeted_request_is_refused_instead_of_running_locally timeout_marks_output_and_uses_timeout_exit_code
    """,
    "agent/test_output": """
        a_shaping_turn_offers_only_the_terminal_tool_and_forces_it
        two_terminal_calls_in_one_round_answer_with_the_first
    """,
    "agent/test_paging": """
        oversized_structured_output_spills_without_losing_details_or_termination
        read_tool_result_windows_tile_the_result_and_mark_the_end
        structured_tool_projects_content_and_hides_details_from_provider
        sub_threshold_results_stay_byte_identical_under_paging
    """,
    "permission/test_asking": """
        a_reasoned_denial_carries_its_words_to_the_tool_result a_remembered_refusal_keeps_its_reason_across_a_restart
        global_scoped_rules_are_visible_to_all_sessions resolve_permission_unknown_id_returns_error
        session_tool_authorizer_emits_permission_request_and_waits
    """,
    "permission/test_policy": """
        a_denied_root_inside_an_allowed_one_refuses_the_write a_symlink_into_a_denied_root_is_refused
        a_traversal_into_a_denied_root_is_refused
        authorize_command_execution_rejects_working_directory_outside_roots authorize_file_write_rejects_symlink_escape
        shell_roots_and_background_switches_short_circuit
    """,
    "agent/test_resume": """
        an_abandoned_branch_can_be_returned_to branching_rewinds_the_active_path_without_deleting_anything
        dropping_runtime_releases_agent_lease_for_next_resume lease_refused_and_the_other_owners_memory_untouched
        resume_replays_last_failed_turn
    """,
    "permission/test_rules": """
        a_pattern_reaches_a_key_that_follows_an_absolute_path check_non_matching_pattern_falls_through
        json_punctuation_in_a_pattern_is_matched_literally rule_store_empty_check_returns_none
    """,
    "permission/test_validation": """
        extracts_command_from_env_prefix shell_validation_defaults_off_and_uses_authorization_semantics
    """,
    "runtime/test_runtime": """
        list_persisted_agents_includes_teammates_for_runtime resolve_model_reports_empty_provider_listing
        resolve_model_reports_missing_provider resolve_model_returns_explicit_id_without_listing_models
        resolve_model_selects_newest_available_then_breaks_ties_by_id resolve_model_supports_openrouter_provider
        resume_all_rebuilds_agents_from_agent_memory resume_filters_agents_by_runtime_identifier
        runtime_exposes_registered_tool_descriptors tools_can_read_registered_app_context
        uses_platform_data_directory_when_available
    """,
    "agent/test_scheduler": """
        a_later_hook_can_still_deny_a_modified_call all_allow_hooks_allows conditional_deny_by_tool_name
        empty_pre_hooks_allows exclusive_success_and_error_outputs_truncate_with_identical_rules first_deny_wins
        modifications_compose_in_order parallel_batches_respect_exclusive_barriers
        parallel_lane_terminate_is_rejected_as_misuse_and_run_continues
        parallel_outputs_truncate_per_result_and_preserve_call_order
        parallel_tools_run_concurrently_and_preserve_history_order pre_execution_hook_blocks_tool_call
        run_options_tool_budget_blocks_second_tool_call run_respects_tool_budget
        shell_tool_emits_stderr_progress_on_failure
        terminating_call_creates_a_barrier_and_skips_the_scheduled_parallel_batch
        tool_authorizer_allows_tool_execution_and_captures_preview
        tool_authorizer_can_prompt_shell_tool_and_emit_hooks tool_authorizer_timeout_blocks_execution
        tool_execution_error_is_wrapped_and_loop_continues tool_execution_timeout_returns_tool_error
    """,
    "runtime/test_session": """
        a_cancelled_session_turn_fails_instead_of_running all_session_events_from_turn_are_serializable_to_json
        append_turn_returns_assistant_message concurrent_calls_do_not_borrow_each_others_names
        create_session_produces_valid_metadata error_recovery_session_accepts_turn_after_failure
        failed_turn_emits_error_event full_scenario_prompt_shell_file_events_end_to_end
        full_session_lifecycle_produces_correct_event_stream session_metadata_serialization_roundtrip
        session_preserves_tool_events_after_many_token_deltas session_set_model_updates_active_and_persisted_model
        session_status_transitions_created_to_idle tool_completion_names_the_tool_that_was_queued
        tool_execution_error_emits_tool_completed_with_is_error
    """,
    "tools/test_skills": """
        enumeration_reports_name_description_and_source falls_back_to_directory_name_when_name_is_missing
        parses_frontmatter_and_strips_it_from_content registering_a_second_root_keeps_the_first
        rejects_duplicate_skill_names rejects_malformed_frontmatter renders_descriptions_in_sorted_order
    """,
    "tools/test_skills_runtime": "registered_skills_are_exposed_and_load_skill_returns_wrapped_content",
    "agent/test_steering": """
        failed_run_requeues_steer_and_resume_reinjects_it finalization_error_requeues_steering_before_returning
        follow_up_waits_for_the_would_stop_boundary graceful_stop_does_not_consume_an_unrequestable_steer
        live_steer_is_visible_in_the_next_provider_request queue_modes_drain_one_or_all_entries_per_boundary
        steering_is_isolated_between_agents_on_one_runtime
    """,
    "store/test_sqlite_file": "volatile_run_leaves_no_durable_trace_on_disk",
    "store/test_leases": "stale_runtime_owner_can_be_reclaimed",
    "store/test_memories": """
        fts_query_returns_none_when_input_has_no_searchable_terms pinned_manual_facts_outrank_episodes
        sqlite_memory_search_ignores_non_searchable_queries sqlite_memory_search_is_namespaced_per_agent
        sqlite_memory_search_sanitizes_punctuation_heavy_queries tombstoned_records_are_excluded_from_reads
    """,
    "store/test_rules_and_questions": """
        load_rules_with_project_id_returns_all_applicable_scopes permission_rules_are_scoped_per_session
        permission_rules_load_returns_empty_for_unknown_session permission_rules_save_and_load_round_trip
        project_scoped_rules_are_visible_across_sessions
    """,
    "store/test_work": "background_tasks_are_scoped_per_agent",
    "agent/test_strategy": """
        none_strategy_matches_continue_strategy_byte_identical retry_and_round_counters_are_reported_distinctly
        strategy_state_does_not_outlive_run
    """,
    "tools/test_tools": """
        files_tool_authorization_preview_exposes_resolved_paths files_tool_denies_writes_outside_workspace_roots
        files_tool_reads_numbered_lines
    """,
    "tools/test_shell": """
        policy_can_deny_shell_tool_execution shell_tool_emits_progress_events_with_output_lines
    """,
    "memory/test_hybrid_store": "wrapper_store_delegates_non_memory_runtime_operations",
    "memory/test_memory": """
        automatic_memory_search_injects_recalled_context_without_persisting_it
        hybrid_memory_recall_includes_provenance_in_hidden_context memory_forget_tool_hides_pinned_hybrid_memory
        memory_forget_tool_rejects_cross_agent_record_ids memory_search_tool_returns_provenance_fields
        memory_ingest_finished_failure_emits_notice_warning memory_ingest_finished_success_emits_memory_updated
        memory_ingest_finished_without_error_uses_fallback_message memory_pin_tool_creates_searchable_hybrid_memory
        non_memory_events_are_silently_ignored successful_runs_are_ingested_and_searchable
    """,
    "agent/test_subagents": """
        task_subagent_does_not_force_hidden_task_tool_choice
        task_subagent_inherits_tool_profile_and_internal_task_hide task_subagent_keeps_load_skill_while_hiding_task
    """,
    "task_board/test_board": """
        adding_cycle_is_rejected blocked_task_cannot_start_or_complete claim_explicit_task_id
        claim_first_ready_unowned_task claim_rejects_unclaimable_tasks
        completed_blocker_stays_out_of_unresolved_blocked_by
        completion_unblocks_and_reopen_reblocks_dependents
        create_and_list_group_ready_blocked_and_completed_tasks teammate_cannot_edit_task_dependencies
    """,
    "task_board/test_tasks": """
        concurrent_intrinsic_creates_serialize_through_task_store_mutate parse_helpers_reject_bad_input
        task_reminder_is_injected_after_three_rounds_without_task_tools
        task_updates_snapshot_and_persists_for_new_agents
    """,
    "teams/test_teams": """
        autonomous_idle_timeout_shuts_down_and_same_name_can_respawn
        broadcast_tool_sends_to_every_other_known_agent failed_teammate_can_recover_on_next_wake
        persistent_teammate_processes_mail_and_reports_back_to_lead
        plan_approval_request_response_keeps_teammate_alive
        resume_revives_persisted_teammate_actors_for_lead_runtime
        resume_wakes_revived_teammate_for_persisted_inbox_work
        shutdown_approval_shuts_down_teammate_after_current_wake_cycle
        task_working_directory_routes_shell_for_teammate team_spawn_tool_registers_persistent_teammate
        teammate_inherits_tool_profile_and_internal_team_hides
        teammate_message_updates_lead_unread_count_before_next_turn
        teammate_reply_wait_consumes_the_snapshot_signaled_inbox
        teammate_shell_without_working_directory_uses_base_dir
    """,
    "agent/test_traces": """
        custom_hooks_observe_model_and_tool_execution
        model_response_finished_hook_reports_stream_failures_without_usage
        model_response_finished_hook_reports_usage_after_successful_commit
    """,
}

UNDER_ANOTHER_NAME = {
    "agent/test_agent::a_server_that_names_a_longer_wait_gets_it_but_not_an_hour": """
        a_rate_limit_that_names_its_window_is_waited_out a_server_cannot_park_a_run_for_an_hour
        a_server_cannot_park_the_run_for_an_hour a_server_that_names_a_longer_wait_gets_it
    """,
    "agent/test_agent::a_stop_while_a_person_is_asked_closes_the_question": "cancel_while_a_prompt_is_open",
    "agent/test_agent::agent_config_deserializes_without_tool_profile_field": """
        agent_config_deserializes_without_reasoning_options agent_config_deserializes_without_tool_search_mode
        provider_request_options_default_to_disabled_tool_search
    """,
    "agent/test_agent::cancelling_the_task_from_outside_runs_the_epilogue": (
        "kernel_interrupt_runs_the_failure_epilogue"
    ),
    "agent/test_agent::hidden_tool_profile_filters_deferred_tools_before_provider_request": (
        "tool_spec_builder_supports_deferred_loading"
    ),
    "agent/test_agent::send_returns_final_message_after_tool_execution": (
        "send_tool_use_turn_executes_tool_and_commits_follow_up_response"
    ),
    "agent/test_agent::tool_profile_respects_allowlist_and_hidden_overrides": """
        tool_profile_defaults_to_allowing_everything tool_profile_hide_blocks_named_tools
        tool_profile_only_exposes_requested_tools tool_profile_only_restricts_to_allowlist
    """,
    "agent/test_agent::tool_spec_deserialization_defaults_loading_policy": (
        "tool_spec_builder_defaults_to_immediate_loading"
    ),
    "agent/test_budgets::a_child_that_hits_its_round_limit_is_an_error_result": (
        "task_tool_returns_error_when_child_hits_round_limit"
    ),
    "agent/test_budgets::delegated_subagent_usage_counts_against_the_parent_token_budget": """
        child_usage_counts_toward_shared_token_budget delegated_usage_reports_reach_the_parent_event_stream
    """,
    "agent/test_budgets::parent_cancellation_reaches_the_delegated_subagent": (
        "child_run_shares_cancellation_with_parent"
    ),
    "agent/test_budgets::run_options_stop_after_tool_round_commits_transcript_and_halts": (
        "a_requested_stop_is_not_reported_as_a_crossed_budget"
    ),
    "agent/test_budgets::token_budget_stops_gracefully_after_the_round_that_crosses_it": (
        "a_crossed_budget_reports_why_the_turn_ended"
    ),
    "event/test_events::derive_tool_summary_prefers_the_command_then_the_path": "derive_tool_summary_*",
    "event/test_events::input_summary_is_cut_by_characters": "input_summary_truncates_before_a_utf8_boundary",
    "event/test_events::tool_execution_finished_is_shown_with_its_name_and_cut_at_200": (
        "tool_execution_finished_maps_*"
    ),
    "event/test_events::what_a_screen_gets": """
        background_task_maps_* subagent_* tool_execution_progress_* tool_use_ready_*
    """,
    "event/test_events::a_delta_is_shown_and_not_recorded": "text_delta_*",
    "event/test_events::a_compaction_is_shown_from_its_beginning_and_a_shortened_result_is_not": "compaction_maps_*",
    "permission/test_asking::a_revoked_allowance_stays_revoked_after_reload": (
        "revoked_project_or_global_allow_stays_revoked_after_reload"
    ),
    "permission/test_asking::a_rule_of_one_session_is_not_for_another": (
        "session_scoped_rules_are_not_visible_to_other_sessions"
    ),
    "permission/test_asking::an_answer_may_come_from_another_thread": (
        "resolve_permission_via_session_handle_while_append_turn_is_in_flight"
    ),
    "permission/test_asking::nobody_answers_in_time_and_a_late_answer_is_refused_and_stores_no_rule": """
        late_answer_after_a_permission_timeout_is_rejected_and_stores_no_rule ui_gone_denies_within_the_timeout
    """,
    "permission/test_asking::project_scope_without_a_project_is_refused_and_the_question_stays_open": (
        "project_scope_without_project_id_is_refused"
    ),
    "permission/test_asking::resolve_permission_emits_event_and_sends_decision_and_remembers": """
        resolve_permission_emits_event_and_sends_decision rule_store_add_and_check_allow
    """,
    "tools/test_files::files_tool_create_emits_tool_progress_once_it_is_done": "files_tool_create_emits_*",
    "tools/test_files::file_op_progress_is_the_first_line_of_what_changed": "file_op_progress_*",
    "tools/test_files::split_read_and_write_match_equivalent_files_operations": "split_*_match_equivalent_files_*",
    "permission/test_policy::a_path_that_leads_outside_is_refused": "normalize_*_rejects_parent_past_root",
    "mcp_client/test_servers::a_call_is_authorized_limited_and_recorded_as_any_other": "mcp_*",
    "agent/test_resume::leases_are_renewed_while_the_runtime_lives": "lease_renewal",
    "agent/test_resume::resuming_again_in_the_same_runtime_and_after_closing": "same_kernel_re_resume_after_close",
    "permission/test_rules::a_denial_wins_over_any_allowance": "rule_store_add_and_check_deny",
    "permission/test_rules::a_rule_is_for_its_tool_only": "check_matches_tool_name_without_pattern",
    "permission/test_rules::a_pattern_reaches_a_key_that_follows_an_absolute_path": (
        "check_matches_pattern_against_input_json"
    ),
    "permission/test_validation::blocks_what_seems_to_change_something_under_a_policy_that_is_read_only": "blocks_*",
    "permission/test_validation::classify_intent_other": "classify_intent_*",
    "permission/test_validation::warns_of_what_destroys": "warns_*",
    "runtime/test_runtime::a_record_that_fails_is_warned_of_once_and_fails_neither_turn_nor_call": (
        "a_raising_audit_sink_does_not_fail_a_run"
    ),
    "runtime/test_runtime::recovery_is_announced_once_with_the_id_of_the_runtime": (
        "an_async_build_prepares_recovery_once_on_the_caller_store"
    ),
    "runtime/test_runtime::resolve_model_supports_local_provider_registration": """
        resolve_model_supports_lmstudio_provider_registration resolve_model_supports_ollama_provider_registration
    """,
    "agent/test_scheduler::a_result_within_the_limits_is_untouched": "under_limit_text_is_byte_identical",
    "agent/test_scheduler::all_allow_hooks_allows": "registering_a_second_pre_hook_keeps_the_first",
    "agent/test_scheduler::the_limit_counts_bytes_and_json_is_never_cut_in_two": (
        "oversized_first_line_is_never_partially_emitted"
    ),
    "agent/test_scheduler::whatever_is_not_an_allowance_blocks": "tool_authorizer_errors_block_execution",
    "runtime/test_session::append_turn_returns_assistant_message": """
        history_returns_committed_messages replay_returns_transcript_after_turn
    """,
    "runtime/test_session::create_session_emits_session_started_to_the_first_listener_only": (
        "create_session_emits_session_started"
    ),
    "runtime/test_session::full_session_lifecycle_produces_correct_event_stream": """
        append_turn_emits_user_and_assistant_events tool_call_session_produces_tool_lifecycle_events
    """,
    "runtime/test_session::resume_session_restores_state_and_rules": """
        resume_session_restores_state resume_session_with_permission_rules_restores_rules
    """,
    "agent/test_steering::next_provider_request_orders_steering_and_then_other_sources": (
        "next_provider_request_orders_steering_team_inbox_then_background"
    ),
    "store/test_rules_and_questions::load_rules_with_project_id_returns_all_applicable_scopes": (
        "rule_store_rules_returns_all_entries"
    ),
    "store/test_work::a_job_id_is_never_used_twice": "background_ids_do_not_repeat_after_resume",
    "task_board/test_tasks::what_a_model_reads_of_the_board": "task_board_*",
    "teams/test_teams::teammate_maps_to_what_a_screen_shows_of_a_task": "teammate_maps_*",
    "tools/test_shell::shell_working_directory_overrides_the_default": (
        "shell_working_directory_overrides_default_routing"
    ),
    "providers/test_scripted::a_failure_comes_on_opening_and_an_erroring_stream_fails_inside": (
        "mock_runtime_surfaces_provider_failures"
    ),
    "providers/test_scripted::tool_calls_get_default_ids_and_keep_malformed_arguments": (
        "mock_runtime_can_script_tool_call_turns"
    ),
    "providers/test_scripted::turns_are_answered_in_order_and_requests_remembered": """
        mock_runtime_replays_streaming_text_turns mock_runtime_replays_text_turns
        mock_runtime_supports_runtime_assembly_assertions
    """,
}

CHANGED = {
    "a long result is kept in the store; events have what the model reads of it": {
        "agent/test_paging::a_long_result_is_shown_in_part_kept_whole_and_read_on_where_the_notice_says": (
            "oversized_results_reach_the_model_paged_and_the_event_stream_whole"
        ),
    },
    "a cancelled run is settled": {
        "agent/test_scheduler::a_stop_in_a_batch_answers_every_call_and_says_which_may_have_run": (
            "cancellation_during_parallel_batch_rolls_back_run"
        ),
    },
    "every call is answered": {
        "agent/test_agent::malformed_tool_json_is_reported_back_to_model_instead_of_aborting": (
            "malformed_tool_json_is_reported_back_to_model_instead_of_aborting"
        ),
        "agent/test_agent::pending_turn_rejects_missing_stop_and_recovers_from_malformed_tool_json": (
            "pending_turn_rejects_missing_stop_and_recovers_from_malformed_tool_json"
        ),
        "agent/test_resume::resume_agent_keeps_committed_transcript_when_tool_execution_was_interrupted": """
            interrupted_tool_call_gets_a_result_on_resume
            resume_agent_keeps_committed_transcript_when_tool_execution_was_interrupted
        """,
    },
    "a turn that died is settled: its text is kept": {
        "agent/test_resume::runtime_startup_preserves_memory_until_resume_and_resume_rolls_back_pending_turn": (
            "runtime_startup_preserves_memory_until_resume_and_resume_rolls_back_pending_turn"
        ),
    },
    "a failed turn can be resumed: its tasks go back when the conversation goes on without it": {
        "task_board/test_tasks::a_failed_turn_that_is_left_behind_leaves_the_board_as_it_was": (
            "task_state_rolls_back_when_run_fails"
        ),
    },
    "a subagent is named by the result of the call, not by messages between a call and its result": {
        "agent/test_subagents::task_tool_runs_child_with_isolated_history_and_filtered_tools": (
            "task_tool_runs_child_with_isolated_history_and_filtered_tools"
        ),
    },
    "a turn is a branch": {
        "store/test_store::a_run_moves_the_leaf_when_it_ends_with_one": (
            "begin_run_commit_and_finish_persist_memory_state"
        ),
        "store/test_store::a_run_that_ends_without_a_leaf_leaves_it_where_it_was": (
            "rollback_and_compaction_update_memory_state"
        ),
    },
    "the policy is asked first": {
        "agent/test_scheduler::shell_tool_is_denied_by_default_policy_and_audited": (
            "shell_tool_is_denied_by_default_policy_and_audited"
        ),
        "permission/test_policy::read_only_refuses_every_write_and_every_command_also_in_the_base_folder": (
            "bounded_policies_keep_host_shell_execution_disabled"
        ),
    },
    "every rule has a pattern; the last decision counts; rules are revoked one by one": {
        "permission/test_rules::the_longest_pattern_wins_among_equals": (
            "check_pattern_rule_takes_precedence_over_no_pattern"
        ),
        "store/test_rules_and_questions::the_last_decision_replaces_the_earlier_one": """
            permission_rules_save_replaces_existing_session_rules rule_store_overwrite_replaces_rule
        """,
        "store/test_rules_and_questions::uses_are_counted_and_a_rule_can_be_revoked": """
            permission_rules_clear_removes_all_for_session rule_store_clear_scope_removes_matching_rules
        """,
    },
    "one store for all; one folder for a user": {
        "runtime/test_runtime::uses_platform_data_directory_when_available": """
            falls_back_to_workspace_dot_directory_without_platform_data_dir
            same_workspace_produces_shared_root_for_all_default_paths
        """,
        "store/test_store::runtime_identifier_round_trips": """
            path_for_runtime_identifier_uses_runtime_specific_filename
            runtime_identifier_round_trips_through_filename_encoding
        """,
    },
    "a turn's beginning is what says its prompt": {
        "event/test_events::what_a_screen_gets": "run_started_maps_to_empty"
    },
    "the tools of features that are open are not there yet": {
        "runtime/test_runtime::default_runtime_exposes_its_tools_and_an_empty_one_none": (
            "default_runtime_exposes_task_and_new_empty_does_not"
        ),
    },
}
"""Scenarios whose outcome is another by decision: why, where, which. `DEPARTURES.md` says more."""

OPEN: dict[str, str] = {}
"""Scenarios of features that are not there yet."""

GONE = {
    "the older transport HTTP+SSE is refused": "sse_*",
    "an id is a string": "session_id_from_raw_preserves_value session_id_roundtrips_through_serde",
    "an answer is plain data without constructors": "permission_decision_*_constructor",
    "a call always has a subject": "check_pattern_rule_does_not_match_without_input",
    "the original never asks its classifier, so there is none": "classify_mutability_*",
    "an agent's configuration has no paths": "explicit_paths_override_defaults",
    "our first version had them": """
        a_rule_stored_before_the_reason_column_loads_without_one
        a_transcript_written_before_entries_had_ids_still_loads_linked
    """,
}

ELSEWHERE = {where: names for group in (UNDER_ANOTHER_NAME, *CHANGED.values()) for where, names in group.items()}


@cache
def found_in(file: Path) -> frozenset[str]:
    nodes = ast.walk(ast.parse(file.read_text()))
    names = (node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(name.removeprefix("test_") for name in names if name.startswith("test_"))


def is_there(file: str, name: str) -> bool:
    path = TESTS / f"{file}.py"
    return path.exists() and name in found_in(path)


def test_a_scenario_is_where_it_is_said_to_be() -> None:
    said = [(file, name) for file, names in UNDER_THEIR_NAMES.items() for name in names.split()]
    said += [(file, name) for file, _, name in (where.partition("::") for where in ELSEWHERE)]
    assert [where for where in said if not is_there(*where)] == []


def test_an_open_or_gone_scenario_has_no_test() -> None:
    tests = frozenset[str]().union(*(found_in(file) for file in TESTS.rglob("test_*.py")))
    assert tests & {name for names in (*OPEN.values(), *GONE.values()) for name in names.split()} == set()


def test_no_scenario_is_named_twice() -> None:
    groups = (UNDER_THEIR_NAMES, ELSEWHERE, OPEN, GONE)
    names = [name for group in groups for words in group.values() for name in words.split()]
    assert sorted(names) == sorted(set(names))

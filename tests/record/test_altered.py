"""What `verify` finds in a sealed record that a person altered who can write its files, but does not know their design.

And what only a digest tells that was kept in another place.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kits.records import problems, seen, write

import mentra_nb as mn
from mentra_nb.record.keep.compact import compact
from mentra_nb.record.keep.prune import prune
from mentra_nb.record.keep.verify import record_head, verify
from mentra_nb.record.write import chain, files, known
from mentra_nb.record.write.journal import Journal

pytestmark = pytest.mark.slow

FORGED = "01a1fcd8-b73e-7b01-b397-2246a46a9c07"


@pytest.fixture
def sealed(folder: Path) -> Path:
    """A record of three sealed segments, all still text."""
    for notes in (("alpha", "beta"), ("gamma",), ("delta", "omega")):
        write(folder, *notes)
    assert problems(folder) == {}
    return folder


def newest(folder: Path) -> Path:
    return files.named(folder, "jsonl")[-1]


def alter_a_letter(folder: Path) -> None:
    text = newest(folder)
    text.write_bytes(text.read_bytes().replace(b"omega", b"omeja"))


def links(folder: Path) -> list[bytes]:
    return (folder / "chain.jsonl").read_bytes().splitlines(keepends=True)


def cut_the_last_link(folder: Path) -> None:
    (folder / "chain.jsonl").write_bytes(b"".join(links(folder)[:-1]))


def mark_the_last_link_as_torn(folder: Path) -> None:
    *before, last = links(folder)
    (folder / "chain.jsonl").write_bytes(b"".join([*before, last[:-1] + b"~\n"]))


def remove_the_chain(folder: Path) -> None:
    (folder / "chain.jsonl").unlink()


def put_in_a_segment(folder: Path) -> None:
    text = newest(folder)
    forged = text.read_bytes().replace(text.stem.encode(), FORGED.encode()).replace(b"omega", b"forged")
    text.with_stem(FORGED).write_bytes(forged)


LOST = "was sealed, but its link is not in the chain any more"


@pytest.mark.parametrize("then", ["verify", "compact", "write", "write and compact"])
@pytest.mark.parametrize("harm", [cut_the_last_link, mark_the_last_link_as_torn, remove_the_chain])
def test_an_altered_segment_without_its_link_is_found(sealed: Path, harm: Callable[[Path], None], then: str) -> None:
    """Also when the record goes on meanwhile, and whatever its own upkeep does."""
    altered = newest(sealed).stem
    harm(sealed)
    alter_a_letter(sealed)
    if "write" in then:
        write(sealed, "later")
    if "compact" in then:
        compact(sealed, grace=0)
    found = problems(sealed)
    assert found[altered] == LOST
    assert "chain.jsonl" in found
    assert newest(sealed).with_stem(altered).exists()  # kept as evidence, and not given a new link
    assert not record_health_is_sound(sealed)


@pytest.mark.parametrize("harm", [cut_the_last_link, mark_the_last_link_as_torn, remove_the_chain])
def test_a_chain_that_goes_on_after_a_lost_link_stays_broken_there(sealed: Path, harm: Callable[[Path], None]) -> None:
    """Also for a check that has nothing but the chain."""
    harm(sealed)
    write(sealed, "later")
    (sealed / "events" / ".known").unlink()
    assert "a line was altered, removed, moved or inserted" in problems(sealed)["chain.jsonl"]


def record_health_is_sound(folder: Path) -> bool:
    return Journal(folder).health().chain_sound


@pytest.mark.parametrize("then", ["verify", "compact", "prune"])
def test_a_segment_that_was_put_in_is_found(sealed: Path, then: str) -> None:
    put_in_a_segment(sealed)
    if then == "compact":
        compact(sealed, grace=0)
        compact(sealed, grace=0)
    if then == "prune":
        prune(before=(datetime.now(UTC) + timedelta(days=1)).isoformat(), folder=sealed)
    assert problems(sealed) == {
        FORGED: "has no link, and no writer of this record has begun it: it was put in, or is of an earlier version"
    }
    assert "forged" in seen(sealed)  # it is shown, and said to be forged


def reseal(folder: Path) -> None:
    """Write the chain and what is known anew, as a person would who knows their design."""
    for file in (folder / "chain.jsonl", folder / "events" / ".known"):
        file.unlink()
    compact(folder, grace=0)


def forget_the_newest(folder: Path) -> None:
    """Leave nothing of the newest segment: neither its events nor its traces in other files."""
    name = newest(folder).stem
    newest(folder).unlink()
    for file in (folder / "chain.jsonl", folder / "events" / ".known"):
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(line for line in lines if name.encode() not in line))


@pytest.mark.parametrize(
    "harm", [lambda folder: (alter_a_letter(folder), reseal(folder)), forget_the_newest], ids=["resealed", "forgotten"]
)
def test_only_a_digest_in_another_place_tells_that_everything_was_replaced(
    sealed: Path, harm: Callable[[Path], object]
) -> None:
    head = record_head(sealed)
    assert head is not None
    assert (head.links, head.events) == (3, 5)
    assert abs(head.time - datetime.now(UTC)) < timedelta(minutes=2)
    harm(sealed)
    assert problems(sealed) == {}
    for kept in (head, head.digest):
        (row,) = mn.verify(sealed, head=kept).dropna(subset="problem").itertuples()
        assert row.segment == "chain.jsonl"
        assert row.problem == f"does not hold the link {head.digest}: what that link sealed was altered or removed"


def test_an_earlier_digest_holds_while_the_record_goes_on(sealed: Path, tmp_path: Path) -> None:
    head = mn.record_head(sealed)
    write(sealed, "later")
    compact(sealed, grace=0)
    prune(before=datetime.now(UTC).isoformat(), folder=sealed)
    write(sealed, "latest")
    handed_over = mn.export(tmp_path / "copy", folder=sealed)
    for folder in (sealed, handed_over):
        assert mn.verify(folder, head=head).problem.isna().all()
    assert mn.record_head(sealed) != head


def test_a_record_without_links_has_no_head(folder: Path) -> None:
    assert mn.record_head(folder) is None


def test_a_segment_whose_writer_was_killed_is_sound(folder: Path) -> None:
    journal = Journal(folder)
    journal.record_audit_event("a", "run_aborted", {"reason": "before it was killed"})
    assert problems(folder) == {}
    killed = folder.with_name("killed")
    shutil.copytree(folder, killed)
    journal.close()
    assert compact(killed, grace=0) == 1
    assert problems(killed) == {}
    assert mn.record_head(killed).links == 1  # type: ignore[union-attr]


def test_a_link_that_its_writer_could_not_note_does_not_break_the_chain(sealed: Path) -> None:
    """It was killed after it wrote the link."""
    file = sealed / "events" / ".known"
    noted = file.read_bytes().rstrip().rpartition(b"\n")[0]
    file.write_bytes(noted[:-20] + b"\n")  # and the power failed
    for _ in range(2):
        assert problems(sealed) == {}
        write(sealed, "later")


def test_a_record_of_an_earlier_version_becomes_known_as_it_is(sealed: Path) -> None:
    (sealed / "events" / ".known").unlink()
    unlinked = newest(sealed).stem
    cut_the_last_link(sealed)
    assert problems(sealed) == {}
    write(sealed, "later")
    assert problems(sealed) == {}
    said = known.read(sealed)
    assert unlinked in said.begun
    assert set(said.links) == {link.digest for link in chain.read(sealed)[0]}
    compact(sealed, grace=0)
    assert problems(sealed) == {}


def test_a_segment_that_an_earlier_version_adds_is_sound_once_it_is_sealed(
    sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions write segments and links as this one does, but note neither in `.known`."""
    with monkeypatch.context() as earlier:
        earlier.setattr(known, "begin", lambda *_: None)
        earlier.setattr(known, "add", lambda *_: None)
        journal = Journal(sealed)
        journal.record_audit_event("a", "run_aborted", {"reason": "written by an earlier version"})
        assert "or is of an earlier version" in "".join(problems(sealed).values())
        journal.close()
    assert problems(sealed) == {}
    write(sealed, "later")
    compact(sealed, grace=0)
    assert problems(sealed) == {}


def test_everything_written_is_known_before_it_is_there(folder: Path) -> None:
    """So that a check at any moment does not take it for forged."""
    journal = Journal(folder, max_bytes=300)
    for n in range(20):
        journal.record_audit_event("a", "run_aborted", {"reason": str(n) * 50})
        assert {file.stem for file in files.named(folder, "jsonl")} <= known.read(folder).begun
        assert verify(folder).problem.isna().all()
    journal.close()
    assert len(known.read(folder).begun) == len(files.named(folder, "jsonl")) > 5


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 50_000,
        b'{"kind":"sealed","segment":{},"events":1,"first":1,"last":1,"sha256":"5","at":1,"previous":null,"digest":"5"}',
        b'{"kind":"sealed","segment":"x","events":1,"first":1,"last":1,"sha256":"5","at":1e300,"previous":null,"digest":""}',
        b'{"kind":"sealed","segment":"x","events":1,"first":1,"last":NaN,"sha256":"5","at":1,"previous":null,"digest":""}',
        b'{"kind":"sealed","segment":"x","events":1,"first":1,"last":1,"sha256":"","at":1,"previous":[],"digest":"x"}',
        b'{"kind":"sealed","segment":"x","events":1,"first":1,"last":1,"sha256":"","at":1,"previous":null,"digest":"\\ud800"}',
    ],
    ids=["deep", "types", "a time without end", "not a number", "a list", "half a letter"],
)
def test_a_line_of_the_chain_that_can_be_no_link_is_named_and_stops_nothing(sealed: Path, line: bytes) -> None:
    with (sealed / "chain.jsonl").open("ab") as file:
        file.write(line + b"\n")
    assert problems(sealed) == {"chain.jsonl": "line 4 of chain.jsonl was altered"}
    head = record_head(sealed)
    assert head is not None
    assert head.links == 3
    write(sealed, "later")
    assert problems(sealed) == {"chain.jsonl": "line 4 of chain.jsonl was altered"}


@pytest.mark.parametrize("name", ["chain.jsonl", "events/.known"])
def test_a_list_of_links_that_cannot_be_read_is_named(sealed: Path, name: str) -> None:
    (sealed / name).unlink()
    (sealed / name).mkdir()
    found = verify(sealed)
    assert f"{name} cannot be read: Is a directory" in found.problem.dropna().tolist()
    record_head(sealed)

"""From files to answers: views, frames, reports, plots, exports."""

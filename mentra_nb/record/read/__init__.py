"""From files to DataFrames: views, frames, reports, plots, exports."""

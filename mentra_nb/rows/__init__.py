"""A prompt over the rows of a frame: typed answers as columns, each asked once, within a budget."""

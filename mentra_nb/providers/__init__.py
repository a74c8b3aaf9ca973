"""Where answers come from: one file for each wire protocol, over one HTTP seam."""

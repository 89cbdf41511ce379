"""Figures: each a function from results to a Bokeh figure, for page, report and notebook alike."""

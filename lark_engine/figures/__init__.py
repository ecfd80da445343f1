"""What is shown, without a screen: data as figures, numbers and words that pages and reports share.

Every function here is pure: figures are plain dicts for plotly, whose colors are tokens (`palette`) that the page or
the report resolves for its theme; text that others wrote is made safe (`safe_text`).
"""

"""Showing a workspace to somebody else: links, reports and bundles, and what is taken out before they leave."""

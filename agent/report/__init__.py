"""Pictures, words and the page."""

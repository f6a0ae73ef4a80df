"""Numbers this project states, from commands in the repository."""

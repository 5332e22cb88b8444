"""The peers: each in the form its own documentation or the tutorials show."""

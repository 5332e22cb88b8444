"""Digests of whole folders: which files there are, and the manifests that say what is in them."""

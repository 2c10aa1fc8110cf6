"""What a collection looks like on disk: checksummed block files and the manifest."""

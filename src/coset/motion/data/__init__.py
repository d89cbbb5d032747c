"""Point tracks and scenes: from files, and made."""

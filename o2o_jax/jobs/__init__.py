"""Jobs, what they need from the disk, and what they leave there."""

"""What a comparison keeps on the disk: its folder and the store of its trials."""

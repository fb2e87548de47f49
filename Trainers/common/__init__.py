"""What SFT and KTO share."""

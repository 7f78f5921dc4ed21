"""Pure array functions without parameters: attention, masks, positions, norms, losses, dropout."""

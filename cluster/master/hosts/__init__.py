"""Other hosts than this machine: which there are, how they are reached, set up and checked."""

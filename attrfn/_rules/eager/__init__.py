"""DeepLIFT's multipliers where no graph is kept and numbers can be looked at: in fewer passes over memory."""

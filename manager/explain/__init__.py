"""Pure: answers to "why": verdicts of filters, what happened to an object, what would help. Decides nothing."""

"""What prompts and the validator are tried on: random calls, wrong answers, right answers in another form."""

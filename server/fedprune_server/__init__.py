"""The coordinator: owns a run's model, masks, rounds and ledger."""

"""What every command shares: ``process`` runs one as a process, ``parser`` reads its options."""

"""The contracts of other programs: their formats, units and frames end here."""

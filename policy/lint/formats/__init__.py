"""The ways to write a report: each module has one pure function, `written(report)`, and prints nothing itself."""

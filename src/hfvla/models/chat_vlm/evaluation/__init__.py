"""Scores of written answers, beside a blank picture and the question alone."""

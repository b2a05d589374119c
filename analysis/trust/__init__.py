"""Can the posterior, and what it predicts, be trusted?"""

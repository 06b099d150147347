"""Slow, obvious twins of the kernels: the definitions, written down without any trick.

Tests compare the kernels with them; nothing else imports them. They share no code with the kernels, so that an error
would have to be made twice.
"""

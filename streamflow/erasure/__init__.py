"""Erasing a subject (G16): plan, apply, certificate.

A subject is on the list (``erasures``) before anything is erased: from then on the loader empties their rows
before it stores them. An erased row keeps its position, time and type, so the audit closes over it, and
over no row that is gone.
"""

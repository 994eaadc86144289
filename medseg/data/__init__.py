"""Datasets as they lie on disk. `layouts` finds the `cases`, `reading` opens them, `splits` divides them, `doctor` says what is
wrong with them, and `repairing` repairs it. Of DICOM: `dicom_studies` are made of `dicom_series` and the objects that refer to them
(`dicom_references`), whose structures become masks (`dicom_structures`); `dicom_objects` writes such objects.
"""

"""Imputation of single-cell counts with the help of bulk RNA-seq."""

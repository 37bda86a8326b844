"""Loads a workbook with openpyxl and saves it: `copy_openpyxl.py INPUT OUTPUT`."""

import sys

import openpyxl

openpyxl.load_workbook(sys.argv[1]).save(sys.argv[2])

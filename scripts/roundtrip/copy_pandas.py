"""Loads a table with pandas and saves it, in the formats of the file names: `copy_pandas.py INPUT OUTPUT`."""

import sys

import pandas

source, target = sys.argv[1:]
# an empty text stays empty, and texts such as `NA` or `00123` stay texts
options = {"keep_default_na": False, "dtype": {"Name": str, "Description": str, "Category": str, "Tags": str}}
read = pandas.read_csv if source.endswith(".csv") else pandas.read_excel
frame = read(source, **options)
if target.endswith(".csv"):
    frame.to_csv(target, index=False)
else:
    frame.to_excel(target, sheet_name="Products", index=False)

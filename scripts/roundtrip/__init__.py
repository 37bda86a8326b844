"""The programs through which roundtrip_test.py sends exports, and the products of the exports."""

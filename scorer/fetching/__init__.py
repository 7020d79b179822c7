"""Fetch images by URL safely: ``urls.py`` parses and checks URLs, ``fetcher.py`` resolves, pins and fetches."""

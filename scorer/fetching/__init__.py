"""Images by URL, guarded: ``urls.py`` parses and judges, ``fetcher.py`` resolves, pins and fetches."""

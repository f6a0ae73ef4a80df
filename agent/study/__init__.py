"""What a study is on disk: its sweep file, folder, records, coverage, times taken again."""

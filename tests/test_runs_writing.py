"""Files are replaced as a whole: who has the old one open goes on reading it."""

from neurojax.runs._writing import write_atomically


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with path.open() as reader:
        write_atomically(path, lambda file: file.write(b"new"))
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]

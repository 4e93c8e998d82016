from quartsse.telemetry.process import memory_bytes, open_files


def test_the_process_can_see_its_memory_and_files() -> None:
    before = open_files() or 0
    with open(__file__):  # noqa: PTH123 - a descriptor
        assert open_files() == before + 1
    assert (memory_bytes() or 0) > 1e6

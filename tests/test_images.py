"""Pictures as schedules: the source's algorithm to the last bit, every kind of picture, and files that are none."""

import copy
import pickle
import struct
import warnings
import zlib
from pathlib import Path

import draw_pictures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

import lrlib
from lrlib import image_schedule, pictures

ROOT = Path(__file__).resolve().parents[1]


def as_in_the_source(picture, num_steps, base_lr, max_lr):
    """Jang et al.'s algorithm, written out plainly."""
    width, height = picture.size
    factor = np.sqrt(width * height * 3 / num_steps)
    small = picture.resize((int(float(width) / factor), int(float(height) / factor)))
    values = np.array(small).flatten().astype(np.float64) / 255
    return base_lr + (max_lr - base_lr) * values[np.minimum(np.arange(num_steps), values.size - 1)], values.size


@pytest.mark.parametrize("name", [*pictures.DRAWN, *pictures.PHOTOGRAPHS])
@pytest.mark.parametrize("num_steps", [100, 1000, 5000])
def test_the_source_s_algorithm_exactly(name, num_steps):
    picture = pictures.drawn(name) if name in pictures.DRAWN else pictures.photograph(name)
    expected, count = as_in_the_source(picture, num_steps, 1e-5, 1e-2)
    schedule = image_schedule(picture, num_steps)
    np.testing.assert_array_equal(schedule(np.arange(num_steps)), expected)
    assert len(schedule.pixels) == count and schedule.held_steps == num_steps - count >= 0
    assert schedule.horizon == num_steps and schedule.size[0] * schedule.size[1] * 3 == count


@given(width=st.integers(2, 60), height=st.integers(2, 60), data=st.data())
def test_rates_stay_within_their_bounds_and_the_last_is_held(width, height, data):
    num_steps = data.draw(st.integers(4 * max(width, height), 3 * width * height + 4 * max(width, height)))
    array = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if num_steps > 3 * width * height:
        with pytest.raises(ValueError, match="at least num_steps"):
            image_schedule(array, num_steps)
        return
    schedule = image_schedule(array, num_steps, 0.1, 0.3)
    rates = schedule(np.arange(num_steps + 50))
    assert rates.min() >= 0.1 and rates.max() <= 0.3 + 1e-15
    assert (rates[len(schedule.pixels) - 1 :] == rates[-1]).all()


def test_every_kind_of_picture_is_converted_as_one_would_expect(tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    rgb = Image.fromarray(colours)
    expected = image_schedule(rgb, 8 * 9 * 3).pixels

    for kind in (np.float32, np.float64):
        assert np.allclose(image_schedule(colours.astype(kind) / 255, 216).pixels, expected, atol=1e-6)
    sixteen = colours.astype(np.uint16) * 257
    assert np.allclose(image_schedule(sixteen, 216).pixels, expected, atol=1e-6)
    assert np.array_equal(image_schedule(colours, 216).pixels, expected)

    palette = rgb.quantize(64)
    assert np.array_equal(image_schedule(palette, 216).pixels, image_schedule(palette.convert("RGB"), 216).pixels)

    clear = rgb.copy()
    clear.putalpha(0)
    assert (image_schedule(clear, 216).pixels == 1).all()
    opaque = rgb.copy()
    opaque.putalpha(255)
    assert np.array_equal(image_schedule(opaque, 216).pixels, expected)
    assert np.allclose(image_schedule(np.asarray(opaque), 216).pixels, expected, atol=1e-6)

    grey = rgb.convert("L")
    assert np.array_equal(image_schedule(grey, 216).pixels, np.repeat(np.asarray(grey).ravel() / 255, 3))
    assert np.array_equal(image_schedule(rgb, 72, grey=True).pixels, np.asarray(grey).ravel() / 255)
    assert np.array_equal(image_schedule(np.asarray(grey)[..., None], 216).pixels, image_schedule(grey, 216).pixels)

    deep = np.arange(72, dtype=np.uint16).reshape(8, 9) * 900
    path = tmp_path / "deep.png"
    Image.fromarray(deep).save(path)
    assert np.allclose(image_schedule(path, 72, grey=True).pixels, deep.ravel() / 65535, atol=1e-6)
    assert np.array_equal(image_schedule(deep > 30_000, 72, grey=True).pixels, (deep > 30_000).ravel())


def scanned(size, order):
    """The rows and columns of the pixels in the order in which they are read: the picture numbers its pixels."""
    numbers = np.arange(size[0] * size[1], dtype=np.uint16).reshape(size[1], size[0])
    read = image_schedule(numbers, numbers.size, order=order, grey=True).pixels * 65_535
    return np.divmod(read.round().astype(int), size[0])


def test_the_orders_of_a_small_picture():
    ways = {"rows": [0, 1, 2, 3], "columns": [0, 2, 1, 3], "boustrophedon": [0, 1, 3, 2], "hilbert": [0, 2, 3, 1]}
    for order, expected in ways.items():
        rows, columns = scanned((2, 2), order)
        assert (2 * rows + columns).tolist() == expected, order


@pytest.mark.parametrize("order", ["rows", "columns", "boustrophedon", "hilbert"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 7), (16, 3)])
def test_every_order_reads_each_pixel_once(order, size):
    rows, columns = scanned(size, order)
    assert sorted(zip(rows, columns, strict=True)) == sorted(np.ndindex(size[1], size[0]))


@pytest.mark.parametrize(("order", "size"), [("boustrophedon", (5, 7)), ("hilbert", (8, 8)), ("hilbert", (32, 32))])
def test_neighbours_follow_each_other(order, size):
    rows, columns = scanned(size, order)
    assert (np.abs(np.diff(rows)) + np.abs(np.diff(columns)) == 1).all()


def test_it_pickles_copies_and_compares():
    picture = pictures.drawn("puppy")
    schedule = image_schedule(picture, 900)
    for other in (image_schedule(picture, 900), pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert other == schedule and hash(other) == hash(schedule) and repr(other) == repr(schedule)
        assert other.size == schedule.size and np.array_equal(other.pixels, schedule.pixels)
        assert np.array_equal(other(range(900)), schedule(range(900)))
    others = [image_schedule(pictures.drawn("noise"), 900), image_schedule(picture, 900, max_lr=0.01 + 1e-15)]
    assert schedule not in others and len({repr(schedule), *map(repr, others)}) == 3


def test_columns_are_the_rows_of_the_transposed_picture():
    array = np.random.default_rng(1).random((6, 4))
    turned = image_schedule(array.T.copy(), 72)
    assert np.array_equal(image_schedule(array, 72, order="columns").pixels, turned.pixels)


def png_header(width, height):
    """A PNG file that claims a size and holds no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_files_that_are_no_good_say_so(tmp_path):
    whole = ROOT / "data" / "images" / "puppy.png"
    cases = {
        "text.png": (b"not a picture", "not a picture"),
        "empty.png": (b"", "not a picture"),
        "cut.png": (whole.read_bytes()[:9000], "cut off or damaged"),
        "bomb.png": (png_header(60_000, 60_000), "pixels, must have at most|not a picture"),
        "large.png": (png_header(10_000, 6_000), "10000 x 6000 pixels, must have at most 50,000,000"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ValueError, match=message) as raised:
                image_schedule(path, 100)
        assert name in str(raised.value)
    with pytest.raises(FileNotFoundError):
        image_schedule(tmp_path / "none.png", 100)


GOOD = np.zeros((10, 10))


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ((np.full((10, 10), np.nan), 100), ValueError, r"from nan to nan, floats must be in \[0, 1\]"),
        ((np.full((10, 10), np.inf), 100), ValueError, r"from inf to inf, floats must be in \[0, 1\]"),
        ((GOOD - 0.1, 100), ValueError, r"floats must be in \[0, 1\]"),
        ((np.zeros((0, 10)), 100), ValueError, "is empty"),
        ((np.zeros(10), 5), ValueError, "has shape"),
        ((np.zeros((10, 10, 2)), 5), ValueError, "has shape"),
        ((GOOD.astype(complex), 100), TypeError, "complex"),
        ((GOOD.astype(int), 100), TypeError, "int64"),
        ((42, 100), TypeError, "is a int"),
        ((GOOD, 301), ValueError, "at least num_steps=301"),
        ((Image.fromarray(np.full((10, 10), 70_000, dtype=np.int32)), 50), ValueError, "from 70000 to 70000"),
        ((GOOD, 0), ValueError, "num_steps=0"),
        ((GOOD, 10.5), TypeError, "num_steps=10.5"),
        ((GOOD, 100, -1e-3), ValueError, "base_lr=-0.001"),
        ((GOOD, 100, 0.1, 0.01), ValueError, "max_lr=0.01"),
        ((GOOD, 100, float("nan")), ValueError, "base_lr=nan"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, error, named):
    with pytest.raises(error, match=named):
        image_schedule(*arguments)


def test_unknown_orders_are_refused():
    with pytest.raises(ValueError, match="order='spiral'"):
        image_schedule(GOOD, 100, order="spiral")


def test_the_argument_is_left_as_it_was_and_the_pixels_cannot_be_changed():
    array = np.random.default_rng(0).random((10, 10))
    before = array.copy()
    schedule = image_schedule(array, 100)
    assert np.array_equal(array, before)
    with pytest.raises(ValueError, match="read-only"):
        schedule.pixels[0] = 1.0


def test_a_picture_trains(tmp_path):
    schedule = image_schedule(pictures.drawn("puppy"), 30, 1e-3, 0.1)
    with lrlib.seeded(0):
        model = lrlib.mlp(64, 8, 10)
    history = lrlib.train(model, lrlib.digits(), schedule, steps=30)
    assert np.array_equal(history.lr, schedule(np.arange(30)))


@pytest.mark.parametrize("draw", draw_pictures.PICTURES, ids=lambda draw: draw.__name__)
def test_the_stored_pictures_are_those_that_the_code_draws(draw):
    difference = np.asarray(pictures.drawn(draw.__name__), dtype=int) - np.asarray(draw(), dtype=int)
    assert np.abs(difference).max() <= 2


def test_each_picture_is_drawn():
    assert tuple(draw.__name__ for draw in draw_pictures.PICTURES) == pictures.DRAWN


def test_power_noise_has_the_power_law_that_it_is_asked_for():
    values = np.mean([np.abs(np.fft.rfft2(pictures.power_noise((128, 128), 2.0, s) - 0.5)) ** 2 for s in range(8)], 0)
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128))
    inside = (frequency > 0.03) & (frequency < 0.3)
    slope = np.polyfit(np.log(frequency[inside]), np.log(values[inside]), 1)[0]
    assert abs(slope + 2) < 0.3


def test_bad_pictures_are_refused_by_name():
    with pytest.raises(ValueError, match="name='kitten'"):
        pictures.drawn("kitten")
    with pytest.raises(ValueError, match="name='kitten'"):
        pictures.photograph("kitten")
    with pytest.raises(ValueError, match="exponent=nan"):
        pictures.power_noise((4, 4), float("nan"), 0)


@pytest.mark.parametrize("shape", [(1, 256), (256, 1), (2, 900), (1, 1)], ids=str)
@pytest.mark.parametrize("grey", [True, False])
def test_a_picture_that_is_too_narrow_to_shrink_becomes_one_row_or_column(shape, grey):
    height, width = shape
    steps = 1 if shape == (1, 1) else 100
    ramp = np.linspace(0, 1, max(shape)).reshape((1, -1) if width >= height else (-1, 1)) * np.ones(shape)
    schedule = lrlib.image_schedule(ramp, steps, base_lr=0.0, max_lr=1.0, grey=grey)
    assert 1 in schedule.size and max(schedule.size) == (1 if steps == 1 else steps // (1 if grey else 3))
    assert (np.diff(schedule(np.arange(steps))) > -0.02).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_read_as_it_is_shown(orientation, tmp_path):
    picture = Image.fromarray(np.add.outer(np.arange(40), 4 * np.arange(60)).astype(np.uint8)).convert("RGB")
    exif = Image.Exif()
    exif[0x112] = orientation
    picture.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as stored:
        shown = lrlib.image_schedule(np.asarray(ImageOps.exif_transpose(stored)), 600)
    read = lrlib.image_schedule(tmp_path / "turned.png", 600)
    assert read == shown and read.size == shown.size


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "bmp"])
def test_a_file_that_is_cut_off_anywhere_is_named(kind, tmp_path):
    Image.fromarray(np.arange(2400).reshape(40, 60).astype(np.uint8)).convert("RGB").save(tmp_path / f"whole.{kind}")
    content = (tmp_path / f"whole.{kind}").read_bytes()
    for share in (0.02, 0.1, 0.3, 0.6):
        (tmp_path / f"cut.{kind}").write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=f"cut.{kind}"):
            lrlib.image_schedule(tmp_path / f"cut.{kind}", 300)


def test_a_folder_is_no_picture_and_says_so_itself(tmp_path):
    with pytest.raises(OSError, match="Is a directory|Permission"):
        lrlib.image_schedule(tmp_path, 300)


@pytest.mark.parametrize("orientation", [b"Exif\0\0" + bytes(range(40)), b"Exif\0\0II*\0"], ids=["noise", "short"])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_an_orientation_that_cannot_be_read_is_none(orientation, kind, tmp_path):
    Image.new("L", (40, 20)).save(tmp_path / f"p.{kind}", exif=orientation)
    assert lrlib.image_schedule(tmp_path / f"p.{kind}", 100, grey=True).size == (14, 7)


@pytest.mark.parametrize("kind, mode", [("ppm", "RGB"), ("im", "L"), ("sgi", "L"), ("eps", "L"), ("tiff", "F")])
def test_a_file_with_a_broken_header_or_values_out_of_range_is_named(kind, mode, tmp_path):
    file = tmp_path / f"p.{kind}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        Image.new(mode, (40, 20), 9 if mode != "RGB" else (9, 9, 9)).save(file)
    content = file.read_bytes()
    broken = [content[:k] + b"\xe0" + content[k + 1 :] for k in range(0, 60, 2)] if mode != "F" else [content]
    refused = 0
    for bytes_ in broken:
        file.write_bytes(bytes_)
        try:
            lrlib.image_schedule(file, 100)
        except ValueError as error:
            assert f"p.{kind}" in str(error)
            refused += 1
    assert refused


def test_16_bits_with_a_transparent_value_lie_on_white(tmp_path):
    values = np.full((20, 20), 7000, np.uint16)
    values[:10] = 0
    Image.fromarray(values).save(tmp_path / "p.png", transparency=0)
    pixels = lrlib.image_schedule(tmp_path / "p.png", 400, grey=True).pixels
    assert pixels[:180] == pytest.approx(1.0) and pixels[-180:] == pytest.approx(7000 / 65_535, abs=1e-3)


def test_the_order_of_bytes_does_not_matter():
    values = np.linspace(0, 65_535, 400).reshape(20, 20).astype(np.uint16)
    pixels = [lrlib.image_schedule(array, 400, grey=True).pixels for array in (values, values.astype(">u2"))]
    np.testing.assert_array_equal(*pixels)


def test_a_long_strip_has_a_hilbert_curve_of_its_own_size():
    strip = lrlib.image_schedule(np.linspace(0, 1, 30_000)[None], 30_000, 0.0, 1.0, order="hilbert", grey=True)
    assert strip.size == (30_000, 1) and len(np.unique(strip.pixels)) > 25_000


def test_a_picture_shrinks_to_the_largest_size_that_fits():
    schedule = image_schedule(np.linspace(0, 1, 81).reshape(9, 9), num_steps=49, grey=True)
    assert schedule.size == (7, 7) and schedule.held_steps == 0
    colour = np.linspace(0, 1, 243).reshape(9, 9, 3)
    assert image_schedule(colour, num_steps=147).size == (7, 7)

"""check_abi.py itself: which changes of the header it lets into the committed file and which it never does.

usage: check_abi_test.py --cc CC --header HEADER
"""
import argparse
import pathlib
import shutil
import sys
import tempfile
import unittest

import check_abi

OPTIONS = argparse.Namespace()


def interface_after(*edits):
    """The interface of the public header after (before, after) replacements, each of which must be possible."""
    text = OPTIONS.header.read_text()
    for before, after in edits:
        assert text.count(before) == 1, f"{text.count(before)} times in the header: {before}"
        text = text.replace(before, after)
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        header = folder / "flashnce" / "flashnce.h"
        header.parent.mkdir()
        header.write_text(text)
        return check_abi.interface_of(OPTIONS.cc, header)
    finally:
        shutil.rmtree(folder)


class CheckAbiTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.present = interface_after()

    def changes(self, *edits):
        """(breaks, additions) of a changed header, through the text of the file and back."""
        return check_abi.compare(check_abi.read(check_abi.write(self.present)), interface_after(*edits))

    def assert_breaks(self, words, *edits):
        breaks, _ = self.changes(*edits)
        self.assertTrue(any(words in sentence for sentence in breaks), breaks)

    def assert_adds(self, words, *edits):
        breaks, additions = self.changes(*edits)
        self.assertEqual(breaks, [])
        self.assertTrue(any(words in sentence for sentence in additions), additions)

    def test_the_file_holds_all_of_it(self):
        self.assertEqual(self.changes(), ([], []))
        self.assertEqual(check_abi.read(check_abi.write(self.present)), self.present)
        kinds = [kind for kind, _ in self.present]
        header = OPTIONS.header.read_text()
        self.assertEqual(kinds.count("function"), header.count("\nFNCE_API "))
        self.assertEqual(kinds.count("struct"), header.count("typedef struct fnce_") - 1)  # fnce_plan is opaque

    def test_bytes_of_every_struct_are_known(self):
        for (kind, name), struct in self.present.items():
            if kind == "struct":
                self.assertEqual(sum(field.size for field in struct.fields), struct.size, name)

    def test_a_field_at_the_end_is_an_addition(self):
        self.assert_adds("int64_t added", ("} fnce_problem;", "  int64_t added;\n} fnce_problem;"))

    def test_a_field_in_the_place_of_a_reserved_one_is_an_addition(self):
        self.assert_adds("float* neg_skewness", ("void* reserved[5];", "float* neg_skewness; void* reserved[4];"))

    def test_a_function_a_constant_and_a_version_are_additions(self):
        self.assert_adds("function fnce_added", ("FNCE_API int32_t fnce_get_threads(void);",
                                                 "FNCE_API int32_t fnce_get_threads(void);\n"
                                                 "FNCE_API fnce_status fnce_added(const fnce_plan* plan);"))
        self.assert_adds("constant FNCE_FLOAT64", ("FNCE_BFLOAT16 = 3 };", "FNCE_BFLOAT16 = 3, FNCE_FLOAT64 = 4 };"))
        self.assert_adds("FNCE_VERSION", ("#define FNCE_VERSION_MAJOR 0", "#define FNCE_VERSION_MAJOR 1"))

    def test_a_struct_without_its_size_cannot_grow(self):
        self.assert_breaks("cannot grow", ("} fnce_anchors;", "  void* added;\n} fnce_anchors;"))
        self.assert_breaks("args.unmixed", ("} fnce_score_buffers;", "  void* added;\n} fnce_score_buffers;"))

    def test_a_field_in_the_middle_moves_the_others(self):
        self.assert_breaks("fnce_problem.perm_block: was", ("int64_t perm_block;", "int64_t m; int64_t perm_block;"))

    def test_a_renamed_retyped_or_removed_field_breaks(self):
        self.assert_breaks("fnce_problem.scores: was", ("int32_t scores;", "int32_t score_bits;"))
        self.assert_breaks("fnce_args.lambda_pos: was", ("const float* lambda_pos;", "const double* lambda_pos;"))
        self.assert_breaks("fnce_layout.unmixed_l: was", ("uint64_t unmixed_l;", ""))

    def test_a_reserved_field_must_be_used_up_whole(self):
        self.assert_breaks("not taken whole", ("void* reserved[5];", "float* added; void* reserved[3];"))

    def test_a_changed_function_or_number_breaks(self):
        self.assert_breaks("fnce_set_threads: was", ("set_threads(int32_t threads)", "set_threads(int64_t threads)"))
        self.assert_breaks("function fnce_build_info is gone", ("FNCE_API const char* fnce_build_info(void);", ""))
        self.assert_breaks("FNCE_NO_DEVICE: was 30, is 32", ("FNCE_NO_DEVICE = 30", "FNCE_NO_DEVICE = 32"))
        self.assert_breaks("FNCE_ALIGNMENT: was 256, is 128", ("FNCE_ALIGNMENT 256", "FNCE_ALIGNMENT 128"))

    def test_what_cannot_be_read_is_an_error(self):
        for edit in (("int32_t scores;", "int32_t scores, more;"), ("int32_t scores;", "int32_t scores : 4;"),
                     ("} fnce_anchors;", "} fnce_anchors; union fnce_u { int a; };"),
                     ("FNCE_GIVEN = 1 ", "FNCE_GIVEN = 1 << 0 ")):
            with self.assertRaises(check_abi.Unreadable):
                interface_after(edit)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--header", type=pathlib.Path, required=True)
    parser.parse_known_args(namespace=OPTIONS)
    unittest.main(argv=sys.argv[:1])

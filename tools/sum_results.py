"""Adds up the JUnit files that ctest and pytest wrote; the last line is 'N passed, N failed, N skipped'.

usage: sum_results.py FOLDER      exit status 1 if a test failed or none ran
"""
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def count(path):
    """(passed, failed, skipped) of one file, from its test cases: ctest and pytest differ in the sums they write."""
    passed = failed = skipped = 0
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main():
    total = [0, 0, 0]
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.xml")):
        counts = count(path)
        total = [a + b for a, b in zip(total, counts)]
        if not any(counts):  # a file of which the stage ran no test
            continue
        print(f"{path.stem:44} {counts[0]:5} passed {counts[1]:5} failed {counts[2]:5} skipped")
    print("{} passed, {} failed, {} skipped".format(*total))
    sys.exit(1 if total[1] or not total[0] else 0)


if __name__ == "__main__":
    main()

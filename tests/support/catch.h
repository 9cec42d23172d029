// Catch2 under one name: version 3 installs catch_all.hpp, version 2.13 a single catch.hpp. Tests include this file
// only and keep to what both versions offer.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#define FNCE_CATCH_VERSION 3
#else
#include <catch2/catch.hpp>
#define FNCE_CATCH_VERSION 2
#endif

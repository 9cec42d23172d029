// The main function of every Catch2 executable of the project. Version 2 generates it, version 3 wants a session.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>

int main(int argc, char** argv) { return Catch::Session().run(argc, argv); }
#else
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
#endif

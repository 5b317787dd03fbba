//! A service for tests: see `forerun_backends::fixture`.

fn main() -> std::process::ExitCode {
    forerun_backends::fixture::main(std::env::args().skip(1))
}

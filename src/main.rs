//! The `nattrail` command.

fn main() {
    nattrail::daemon::log::install(nattrail::daemon::log::Prefix::from_environment());
    let file = std::env::args_os().nth(2).map(std::path::PathBuf::from);
    if let Err(error) =
        nattrail::daemon::run(|| nattrail::config::Config::load(file.as_deref(), std::env::vars()))
    {
        log::error!("{error}");
        std::process::exit(1);
    }
}

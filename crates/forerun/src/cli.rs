//! The arguments, raw.

use crate::commands::predict::PredictArgs;
use crate::failure::Failure;
use crate::replay::ReplayArgs;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use forerun_api::Role;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Forerun starts what your users are about to need.
#[derive(Debug, Parser)]
#[command(name = "forerun", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole story on this machine, nothing else needed; ends with a before/after table
    Demo(DemoArgs),
    /// Run: router, engine and API
    Up(UpArgs),
    /// What policies would have done on a recorded trace
    Replay(Box<ReplayArgs>),
    /// Who does what next, and when: predictions on a recorded trace, and how good they are
    Predict(Box<PredictArgs>),
    /// Quantile forecasts of the load in a plain CSV, or how good they would have been
    Forecast(Box<ForecastArgs>),
    /// What a running Forerun does now, service by service
    Status(StatusArgs),
    /// The same live in the terminal, with keys to explain, wake, pause and resume
    Top(TopArgs),
    /// Bring a service up as a request would, without one
    Wake(ControlArgs),
    /// Leave a service as it is now, until it is resumed
    Pause(ControlArgs),
    /// Take back a person's word on a service, and what was stopped by hand
    Resume(ControlArgs),
    /// Hold a service at a number of instances
    Scale(ScaleArgs),
    /// Start and stop a service's instances from now on
    Act(ControlArgs),
    /// Say from now on what would be started and stopped of a service, and do nothing
    Advise(ControlArgs),
    /// Only watch a service from now on
    Observe(ControlArgs),
    /// What the router's cache keeps
    #[command(subcommand)]
    Cache(CacheCommand),
    /// What is up of a service and why, what would change it, and who wakes it
    Explain(ExplainArgs),
    /// Where a request would go, rule by rule
    Route(RouteArgs),
    /// Whether everything that Forerun needs is there, line by line, with the mend
    Doctor(DoctorArgs),
    /// Labels that make containers Forerun's, for those that are there or in a compose file
    Adopt(AdoptArgs),
    /// What was up of a service at a time, and why, from the journal
    Why(WhyArgs),
    /// What the traffic so far costs, and what others would have made of it, from the journal
    Savings(SavingsArgs),
    /// Make, list, rotate or revoke what opens the API where it needs a token
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print what completes forerun's arguments in a shell
    Completions {
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command into a folder
    Man {
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Write, check or describe a configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Serves HTTP as an instance of the demo
    #[command(name = "__fixture", hide = true)]
    Fixture {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<String>,
    },
    /// Kills what instances left behind once Forerun is gone
    #[command(name = "__reaper", hide = true)]
    Reaper,
    /// Becomes an instance
    #[command(name = "__launch", hide = true)]
    Launch {
        /// Open files that the instance may have before it asks for more
        #[arg(long)]
        open_files: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// What runs the instances
    #[arg(long, value_name = "BACKEND", default_value = "process", value_parser = ["process", "docker"])]
    pub(crate) backend: String,
    /// Play only this act
    #[arg(long, value_name = "ACT", value_parser = ["services", "users"])]
    pub(crate) act: Option<String>,
    /// Race over so many recorded minutes of each act at most
    #[arg(long, value_name = "N")]
    pub(crate) minutes: Option<usize>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ForecastArgs {
    /// `series,t,value`, or a column of times and one of values; `-` is standard input, .gz and .zst are read as they are
    #[arg(value_name = "SERIES.csv")]
    pub(crate) series: String,
    /// Forecast at these: `series,origin,horizon,season,test_from`
    #[arg(long, value_name = "FILE", requires = "out", conflicts_with_all = ["horizon", "backtest"])]
    pub(crate) origins: Option<String>,
    /// Write `series,origin,step,q0.1,q0.5,q0.9,q0.95,q0.99`; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// How far ahead, as `1h`
    #[arg(long, value_name = "DURATION", required_unless_present = "origins")]
    pub(crate) horizon: Option<String>,
    /// Instead of a forecast, how good forecasts of the last part of the series would have been
    #[arg(long, value_name = "FRACTION", num_args = 0..=1, default_missing_value = "0.2")]
    pub(crate) backtest: Option<f64>,
    /// Fail at the first line that cannot be read, instead of skipping it
    #[arg(long)]
    pub(crate) strict: bool,
    /// Write a page with the picture
    #[arg(long, value_name = "FILE", conflicts_with = "origins")]
    pub(crate) html: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// Configuration file [default: forerun.toml]
    #[arg(short, long = "config", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Where a running Forerun is asked.
#[derive(Debug, Args)]
pub(crate) struct ApiAddress {
    /// Address of the API [default: api.listen of the configuration, or 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) api: Option<SocketAddr>,
    /// What opens the API where it needs a token [default: the environment's FORERUN_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

impl ApiAddress {
    /// The token that was said, or the environment's.
    ///
    /// # Errors
    /// It cannot be a token: it would end the line of a header.
    pub(crate) fn token(&self) -> Result<Option<String>, Failure> {
        let (from, token) = match &self.token {
            Some(token) => ("--token", Some(token.clone())),
            None => ("FORERUN_TOKEN", std::env::var("FORERUN_TOKEN").ok()),
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        match token {
            Some(token) if !token.bytes().all(|b| b.is_ascii_graphic()) => Err(Failure::Arguments(format!(
                "{from}: is no token; one is `forerun_` and 64 digits, as forerun token create prints it"
            ))),
            token => Ok(token),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    #[command(flatten)]
    pub(crate) api: ApiAddress,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
    /// Instances
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub(crate) instances: u32,
    /// Give it back to the plan after that time, as `1h` or `30m` [default: never]
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) hold: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Serve something no longer, and keep nothing of it that is being fetched
    Purge(PurgeArgs),
}

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = false, args = ["url", "prefix", "tag", "all"])]
pub(crate) struct PurgeArgs {
    /// One URL as it is asked for, with its port if it has one: http://HOST/PATH
    #[arg(value_name = "URL")]
    pub(crate) url: Option<String>,
    /// All URLs that begin so
    #[arg(long, value_name = "URL")]
    pub(crate) prefix: Option<String>,
    /// All answers with this tag in Surrogate-Key or Cache-Tag
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// Everything
    #[arg(long)]
    pub(crate) all: bool,
    /// Only of this tenant
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    #[command(flatten)]
    pub(crate) api: ApiAddress,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Name of the service, or an instance, as `i12`
    #[arg(value_name = "SERVICE|INSTANCE")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) api: ApiAddress,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RouteArgs {
    /// As a client would ask for it: `http://shop.example.com/orders`
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// Method of the request
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    pub(crate) method: String,
    /// A header of the request, as `User-Agent: curl/8`
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    #[command(flatten)]
    pub(crate) api: ApiAddress,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// Read Sablier's labels, of the containers that are there or of a compose file
    #[arg(long, value_name = "FILE.yml", num_args = 0..=1)]
    pub(crate) from_sablier: Option<Option<PathBuf>>,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) api: ApiAddress,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) api: ApiAddress,
    /// How often the API is asked
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub(crate) every: String,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    /// A date (UTC where no zone is given), or seconds since 1970
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) at: String,
    /// Folder of the journal, or one segment [default: that of the configuration's store]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) journal: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// So many changes before that at most
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) changes: usize,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SavingsArgs {
    /// Count from there on: a time back, as 30d, or a date; what lies before only teaches [default: all]
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Whom to compare with: policies as `forerun replay` knows them, separated by commas
    #[arg(long, value_name = "P[,P...]", default_value = "keep-alive=10m,knative,always-on", num_args = 1)]
    pub(crate) against: Vec<String>,
    /// Folder of the journal, or one segment [default: that of the configuration's store]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) journal: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Write a page with the table, a chart, and what was saved, in money where the configuration has prices
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// Tokens are kept in the state folder of the configuration; a running Forerun heeds what is changed at once.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make one and print it, this once
    Create {
        /// By this name it is listed, rotated, revoked and logged
        #[arg(value_name = "NAME")]
        name: String,
        /// viewer reads, operator tells services what to do, admin reads the audit log too
        #[arg(long, value_name = "ROLE", default_value = "viewer")]
        role: Role,
        /// Only for this tenant's services [default: all]
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// Lets nobody in after that time, as `90d` [default: never ends]
        #[arg(long = "for", value_name = "TIME")]
        expires: Option<String>,
        #[command(flatten)]
        more: TokenArgs,
    },
    /// Replace one by a new one of the same name, role and tenant, and print it, this once
    Rotate {
        #[arg(value_name = "NAME")]
        name: String,
        /// How long the old one counts beside it, as `1h` [default: not at all]
        #[arg(long, value_name = "TIME")]
        overlap: Option<String>,
        #[command(flatten)]
        more: TokenArgs,
    },
    /// Take one away
    Revoke {
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        more: TokenArgs,
    },
    /// What tokens there are; never the tokens themselves
    List {
        #[command(flatten)]
        more: TokenArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a commented example, every key shown
    Init {
        /// Where to write it; `-` is standard output
        #[arg(default_value = crate::config::FILE)]
        file: PathBuf,
    },
    /// Say what is wrong with a configuration, by line
    Check(ConfigFile),
    /// Print the JSON Schema of the configuration
    Schema,
}

/// The whole command line, for what is made from it.
pub(crate) fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Reads the arguments. Help and version are printed here, as they are no failure.
///
/// # Errors
/// Bad arguments, in one line; or the reader of the help has gone.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Failure> {
    match Cli::try_parse_from(args) {
        Ok(cli) => Ok(cli.command),
        Err(error) if error.use_stderr() => Err(Failure::Arguments(one_line(&error))),
        Err(error) => {
            error.print().map_err(Failure::from)?;
            std::process::exit(0);
        }
    }
}

/// Clap's message without its name, its usage and its line breaks.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command given; see forerun --help".to_owned();
    }
    let text = error.to_string();
    let told: Vec<&str> = text
        .strip_prefix("error: ")
        .unwrap_or(&text)
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    format!("{}; see forerun --help", told.join(" ").replace(" tip: ", "; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_arguments_are_told_in_one_line() {
        for (args, part) in [
            (&["forerun"][..], "no command given"),
            (&["forerun", "statsu"], "unrecognized subcommand 'statsu'"),
            (
                &["forerun", "status", "--jsn"],
                "unexpected argument '--jsn' found; a similar argument exists: '--json'",
            ),
            (&["forerun", "status", "--api", "x"], "invalid value 'x' for '--api <ADDRESS>'"),
            (&["forerun", "config"], "no command given; see forerun --help"),
        ] {
            let error = parse(args.iter().map(OsString::from)).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(part) && !text.contains('\n'), "{args:?}: {text}");
            assert!(matches!(error, Failure::Arguments(_)));
        }
    }
}

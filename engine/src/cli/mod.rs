//! The command line: one file a command, and the pieces that several commands show things with.
//!
//! What must always hold: stdout carries rows only; progress and messages go to stderr.

pub mod bench;
pub mod brokers;
pub mod demo;
pub mod demo_models;
pub mod example;
pub mod execute;
pub mod generate;
pub mod models;
pub mod output;
pub mod produce;
pub mod progress;
pub mod run;
pub mod sending;
pub mod serve;
pub mod shell;
pub mod signals;
pub mod table;
pub mod topics;
pub mod train;
pub mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Stream SQL on Apache Arrow DataFusion: Kafka in; Parquet, models and predictions out.
#[derive(Debug, Parser)]
#[command(name = "velosql", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs SQL files: every INSERT of a file is one job
    Run(run::RunArgs),
    /// Says whether SQL files can run (0 yes, 1 yes but not on Flink, 2 no)
    Check(run::CheckArgs),
    /// Shows the stream plan of SQL files
    Explain(run::ExplainArgs),
    /// A shell for SQL: statements end with ';'
    Sql(shell::ShellArgs),
    /// Sends a file to a topic: at once, at a rate, or as its own times say
    Produce(produce::ProduceArgs),
    /// Creates, lists and describes topics
    Topics(topics::TopicsArgs),
    /// Makes records: a bike-share day, its stations, bids for benchmarks
    Generate(generate::GenerateArgs),
    /// Runs the whole job on generated data with an embedded broker
    Demo(demo::DemoArgs),
    /// Runs the CREATE MODEL statements of SQL files
    Train(train::TrainArgs),
    /// Lists, shows, compares and exports models, and moves their aliases
    Models(models::ModelsArgs),
    /// Answers predictions over gRPC and HTTP
    Serve(serve::ServeArgs),
    /// Measures a SQL file's job, and the limits of its topics in the same run
    Bench(bench::BenchArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => run::check(&args),
        Command::Explain(args) => run::explain_files(&args),
        Command::Sql(args) => shell::shell(&args),
        Command::Produce(args) => produce::produce(&args),
        Command::Topics(args) => topics::topics(&args),
        Command::Generate(args) => generate::run::generate(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Train(args) => train::train(&args),
        Command::Models(args) => models::models(&args),
        Command::Serve(args) => serve::serve(&args),
        Command::Bench(args) => bench::bench(&args),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.kind().exit_status())
        }
    }
}

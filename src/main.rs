//! The program: arguments, logging, one verb, and the result as one TRACE and an exit code.

use std::any::Any;
use std::backtrace::Backtrace;
use std::env;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;

use destination_kinesis::catalog::Catalog;
use destination_kinesis::cli::{self, Command, Text};
use destination_kinesis::config::KinesisConfig;
use destination_kinesis::error::Error;
use destination_kinesis::output::Output;
use destination_kinesis::signals::Shutdown;
use destination_kinesis::{check, input, logging, spec, write};
use tokio::runtime::{Builder, Runtime};

/// The exit code of wrong usage.
const USAGE: u8 = 2;

/// Where the first panic was, for the TRACE. Its message is not kept: it may show data.
static PANIC: Mutex<Option<(String, String)>> = Mutex::new(None);

fn main() -> ExitCode {
    let output = Output::stdout();
    let command = match cli::parse(env::args_os().skip(1)) {
        Ok(command) => command,
        Err(text) => return show(text, &output),
    };
    panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let mut first = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| (place, Backtrace::force_capture().to_string()));
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(|| run(command, &output)));
    match with_panic(result) {
        Ok(()) if output.is_closed() => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error_trace(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs one verb.
fn run(command: Command, output: &Output) -> Result<(), Error> {
    match command {
        Command::Spec => {
            output.lines(format!("{}\n", spec::spec_message()?).as_bytes());
            Ok(())
        }
        Command::Check { config, catalog: _ } => {
            logging::start(
                output.clone(),
                logging::level(env::var("LOG_LEVEL").ok().as_deref()),
            );
            let config = read(&config, "configuration")?;
            let shutdown = Shutdown::on_signals();
            let runtime = runtime()?;
            let status = runtime.block_on(check::run(&config, shutdown));
            runtime.shutdown_background();
            output.connection_status(&status?);
            Ok(())
        }
        Command::Write { config, catalog } => {
            logging::start(
                output.clone(),
                logging::level(env::var("LOG_LEVEL").ok().as_deref()),
            );
            write::check_environment()?;
            let config = KinesisConfig::from_json(&read(&config, "configuration")?)?;
            let catalog = Catalog::from_json(&read(&catalog, "catalog")?)?;
            let shutdown = Shutdown::on_signals();
            let stdin = io::stdin();
            write::greet_terminal(&stdin);
            input::widen(&stdin);
            let runtime = runtime()?;
            let result =
                runtime.block_on(write::run(config, catalog, stdin, output.clone(), shutdown));
            // Not waited for: a look-up of a name or a request may take longer than anybody wants.
            runtime.shutdown_background();
            result.map_err(|error| error.with_outlook("The next try goes on from the last state."))
        }
    }
}

/// A runtime with a thread for each core but one: that one has its hands full with standard input.
fn runtime() -> Result<Runtime, Error> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread()
        .worker_threads(cores.saturating_sub(1).max(1))
        .enable_all()
        .build()
        .map_err(|error| {
            Error::system("The system gives no threads or sockets to work with.")
                .with_internal(error.to_string())
        })
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| {
        Error::config(format!(
            "The {what} file {} cannot be read: {error}. Check the path and its permissions.",
            path.display()
        ))
    })
}

/// A panic anywhere is an error like any other, with the place where it happened.
fn with_panic(result: Result<Result<(), Error>, Box<dyn Any + Send>>) -> Result<(), Error> {
    let panic = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (result, panic) {
        (_, Some((place, stack_trace))) => Err(Error::system(
            "This destination stopped because of a bug of its own. Run the sync again: it goes on from the last state. If it \
             happens again, report it with the stack trace.",
        )
        .with_internal(format!("panic at {place}"))
        .with_stack_trace(stack_trace)),
        (Ok(result), None) => result,
        (Err(_), None) => Err(Error::system("This destination stopped because of a bug of its own.")),
    }
}

/// Shows text instead of running a verb. Wrong usage is told in words at a terminal, and as a TRACE to
/// a program, which takes every line of stderr for an error and every line of stdout for a message.
fn show(text: Text, output: &Output) -> ExitCode {
    match text {
        Text::Asked(text) => {
            output.lines(text.as_bytes());
            ExitCode::SUCCESS
        }
        Text::Usage(text) => {
            let mut stderr = io::stderr();
            if stderr.is_terminal() {
                // Nobody is left to tell when this fails.
                let _ = writeln!(stderr, "{text}");
            } else {
                output.error_trace(&Error::config(text));
            }
            ExitCode::from(USAGE)
        }
    }
}

//! Every error of the core: a sentence with the numbers in it, and what to do.

use thiserror::Error;

/// The result of a function that can refuse its input.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call is refused. The message says what was found, what was expected, and
/// what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A scan without positions.
    #[error("The scan is empty: at least one scan position is needed.")]
    EmptyScan,

    /// Coordinates that are NaN or infinite.
    #[error(
        "{what} must be finite: row {row} is the first of {count} rows (of {total}) that hold NaN or infinity. \
         Remove or repair these rows first."
    )]
    NotFinite {
        /// Which array.
        what: &'static str,
        /// The first such row.
        row: usize,
        /// How many rows.
        count: usize,
        /// Out of how many.
        total: usize,
    },

    /// A coordinate so large that its square overflows.
    #[error(
        "The coordinates of scan positions must lie within 1e150: row {row} is the first of {count} \
         rows (of {total}) that do not. Positions are given in pixels of the object; check their unit."
    )]
    TooFar {
        /// The first such row.
        row: usize,
        /// How many rows.
        count: usize,
        /// Out of how many.
        total: usize,
    },

    /// More positions than 32-bit indices can address.
    #[error(
        "The scan has {n} positions, and 32-bit indices can address only {most}. Group the scan in parts."
    )]
    TooManyPositions {
        /// Positions given.
        n: usize,
        /// Positions that can be indexed.
        most: usize,
    },

    /// Groups of more positions than neighbours are considered. Callers match on the
    /// first sentence: do not change it.
    #[error(
        "K={k} must be >= C={c} (need at least C neighbors to form a group). Raise n_neighbors (K) to {c} or more."
    )]
    TooFewNeighbors {
        /// Neighbours considered.
        k: usize,
        /// Channels of a group.
        c: usize,
    },

    /// Groups of more positions than the scan has. Callers match on the first
    /// sentence: do not change it.
    #[error(
        "Dataset has only {n} points but {c} coordinates per group requested. Use a smaller gridsize or a longer scan."
    )]
    TooFewPositions {
        /// Positions of the scan.
        n: usize,
        /// Channels of a group.
        c: usize,
    },

    /// Neighbour lists that are shorter than what is asked of them.
    #[error(
        "The neighbor lists hold {listed} neighbors of each position, but {needed} are needed. \
         List more of them, or pass the index instead."
    )]
    TooFewListed {
        /// Neighbours that are needed of each position.
        needed: usize,
        /// Neighbours that the lists hold.
        listed: usize,
    },

    /// A number outside of its range.
    #[error("{what} must be {}, got {found}.", range(*least, *most))]
    OutOfRange {
        /// Which argument.
        what: &'static str,
        /// The smallest allowed.
        least: usize,
        /// The largest allowed.
        most: usize,
        /// What was passed.
        found: usize,
    },

    /// Indices of positions or patterns that do not exist.
    #[error(
        "{what} must hold indices from 0 to {last}: entry {row} is {found}, and {count} of {total} entries are out of range."
    )]
    IndexOutOfRange {
        /// Which array.
        what: &'static str,
        /// The first such entry.
        row: usize,
        /// Its value.
        found: i64,
        /// How many such entries.
        count: usize,
        /// Out of how many.
        total: usize,
        /// The last index allowed.
        last: usize,
    },

    /// An array whose length does not fit the arrays beside it.
    #[error("{what} holds {found} elements, but {expected} are needed ({why}).")]
    Length {
        /// Which array.
        what: &'static str,
        /// Elements it has.
        found: usize,
        /// Elements it should have.
        expected: usize,
        /// Where the expectation comes from.
        why: &'static str,
    },

    /// `PTYCHO_FAST_NUM_THREADS` is not a number of threads.
    #[error(
        "PTYCHO_FAST_NUM_THREADS must be a whole number of at least 1, got {found:?}. Unset it to use all processors."
    )]
    ThreadsVariable {
        /// The variable's value.
        found: String,
    },

    /// `PTYCHO_FAST_SIMD` names instructions that the processor lacks.
    #[error(
        "PTYCHO_FAST_SIMD must be portable, avx2 or avx512, and the processor must support it, got {found:?}. \
         Unset it to use the widest instructions that the processor has."
    )]
    SimdVariable {
        /// The variable's value.
        found: String,
    },

    /// The operating system could not start the threads.
    #[error(
        "The operating system could not start {threads} threads: {reason}. Ask for fewer with num_threads."
    )]
    NoThreads {
        /// Threads asked for.
        threads: usize,
        /// The system's reason.
        reason: String,
    },

    /// A result that does not fit in memory.
    #[error("{rows} rows of {width} indices ({bytes} bytes) do not fit in memory. Ask for fewer.")]
    OutOfMemory {
        /// Rows of the result.
        rows: usize,
        /// Indices in each.
        width: usize,
        /// Bytes they take.
        bytes: usize,
    },

    /// What is needed beside the result does not fit in memory.
    #[error(
        "Out of memory: cannot allocate {bytes} bytes for {what}. Ask for less at once (fewer positions, groups, \
         neighbors or threads), or allow the process more memory."
    )]
    NoMemory {
        /// What it is for.
        what: &'static str,
        /// Bytes it takes.
        bytes: usize,
    },

    /// Not a state of the legacy generator.
    #[error(
        "The state of a Mersenne Twister has 624 words and a place from 0 to 624, got {words} words and place {place}."
    )]
    TwisterState {
        /// Words given.
        words: usize,
        /// Place given.
        place: usize,
    },
}

/// The numbers from `least` to `most`, in words.
fn range(least: usize, most: usize) -> String {
    match most {
        usize::MAX => format!("at least {least}"),
        _ if least == most => format!("{least}"),
        _ => format!("between {least} and {most}"),
    }
}

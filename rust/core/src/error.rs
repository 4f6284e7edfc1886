//! Every refusal, as a sentence with the numbers in it and the way out.

use thiserror::Error;

/// The result of anything that can refuse its input.
pub type Result<T> = std::result::Result<T, Error>;

/// What was found, what was expected, what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A scan without positions.
    #[error("The scan is empty: at least one position is needed.")]
    EmptyScan,

    /// NaN or infinity among coordinates.
    #[error(
        "{what} must be finite: row {row} is the first of {count} rows (of {total}) that hold NaN or infinity. \
         Drop those rows, or repair them, before grouping."
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
        "Positions must lie within 1e150: row {row} is the first of {count} rows (of {total}) beyond it. \
         Positions are pixels of the object grid; check their unit."
    )]
    TooFar {
        /// The first such row.
        row: usize,
        /// How many rows.
        count: usize,
        /// Out of how many.
        total: usize,
    },

    /// More positions than 32-bit indices can name.
    #[error(
        "The scan has {n} positions, but indices are 32-bit and name at most {most}. Group the scan in parts."
    )]
    TooManyPositions {
        /// Positions given.
        n: usize,
        /// Positions that can be indexed.
        most: usize,
    },

    /// Fewer neighbours than channels. Callers match on the first sentence.
    #[error(
        "K={k} must be >= C={c} (need at least C neighbors to form a group). Raise n_neighbors (K) to {c} or more."
    )]
    TooFewNeighbors {
        /// Neighbours considered.
        k: usize,
        /// Channels of a group.
        c: usize,
    },

    /// Fewer positions than channels. Callers match on the first sentence.
    #[error(
        "Dataset has only {n} points but {c} coordinates per group requested. Use a smaller gridsize or a longer scan."
    )]
    TooFewPositions {
        /// Positions of the scan.
        n: usize,
        /// Channels of a group.
        c: usize,
    },

    /// A count below (or above) what makes sense.
    #[error("{what} must lie between {least} and {most}, got {found}.")]
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

    /// An index that names no position or pattern.
    #[error(
        "{what} must be indices in 0..={last}: entry {row} is {found}, and {count} of {total} entries are out of range."
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

    /// Lengths that do not belong together.
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
        "PTYCHO_FAST_NUM_THREADS must be a whole number of at least 1, got {found:?}. Unset it to use every core."
    )]
    ThreadsVariable {
        /// The variable's value.
        found: String,
    },

    /// `PTYCHO_FAST_SIMD` names no instructions of this processor.
    #[error(
        "PTYCHO_FAST_SIMD must be portable, avx2 or avx512, and this processor must have it, got {found:?}. \
         Unset it to use the widest instructions there are."
    )]
    SimdVariable {
        /// The variable's value.
        found: String,
    },

    /// The operating system gave no threads.
    #[error(
        "No pool of {threads} threads could be started: {reason}. Ask for fewer with num_threads."
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
        /// What they take.
        bytes: usize,
    },

    /// What the work takes beside its result does not fit in memory.
    #[error(
        "{what} takes {bytes} bytes, and there is no memory for that. Ask for less at once (fewer positions, \
         groups, neighbors or threads), or allow the process more memory."
    )]
    NoMemory {
        /// What it is for.
        what: &'static str,
        /// What it takes.
        bytes: usize,
    },

    /// A state of the legacy generator that cannot be one.
    #[error(
        "A Mersenne Twister state has 624 words and a place in 0..=624, got {words} words and place {place}."
    )]
    TwisterState {
        /// Words given.
        words: usize,
        /// Place given.
        place: usize,
    },
}

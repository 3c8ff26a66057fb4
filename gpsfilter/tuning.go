package gpsfilter

// tuning holds the constants of the models. They were chosen together by
// random search over all drives with truth and checked by leaving each drive
// out; docs/gpsfilter.md says how. Lengths are metres, times seconds.
type tuning struct {
	// White acceleration along and across the course in m²/s³, without and
	// with a reported velocity, and with a reported speed alone; while the
	// vehicle stands; and by how much it grows per second without a fix.
	QAlong, QCross, QAlongVelocity, QCrossVelocity, QAlongWheel, QCrossWheel, QStanding, QGap float64
	// The bias: standard deviation and variance per variance of white noise,
	// without and with a reported velocity; time constant.
	BiasM, BiasVelocityM, BiasPerNoise, BiasPerNoiseVelocity, BiasTauS float64
	// The position's white noise: first guess as a fraction of the accuracy,
	// smallest standard deviation, learning rate, rate at first, clip of the squared
	// normalised distance; learning rate of the usual accuracy.
	NoiseFraction, NoiseFloorM, NoiseRate, NoiseStartRate, NoiseClip, AccuracyRate float64
	// Degrees of freedom of the position's noise, without and with a reported
	// velocity.
	DOF, DOFVelocity float64
	// A manoeuvre: least squared normalised distance, least speed where none
	// is reported, longest time between fixes, least squared cosine, largest
	// distance per squared second and per noise, variance set free per squared
	// distance, clip for learning the noise.
	TurnDistance, TurnMinMPS, TurnMaxS, TurnCos2, TurnMostMPS2, TurnMostPerNoise, TurnGain, TurnClip float64
	// Variance of an unknown velocity, per axis.
	StartVelVar float64
	// A reported velocity: standard deviation of the speed; variances of speed
	// and of the component across per squared acceleration along and across;
	// standard deviations of the course in radians, of the component across at
	// walking pace, and of a speed without a course.
	SpeedSD, SpeedPerAlong, SpeedPerAcross, CoursePerAlong, CoursePerAcross float64
	HeadingSD, LowSpeedSD, WheelSD                                          float64
	// The lags of speed and course: first guesses; what a slow vehicle's
	// course is late in addition, and the speed that halves that; least
	// squared change of velocity to learn from; forgetting factor; weight of
	// the first guess.
	SpeedLagS, CourseLagS, SlowLagS, SlowLagMPS, LagMinDV, LagForget, LagPrior float64
	// Gate for outliers as squared normalised distance, of a track that has
	// just begun, and as distance; speed between two fixes that agree.
	Gate, StartGate, GateM, AltSpeed float64
	// Standstill: speed below which it begins, per noise, and of the track in
	// multiples; how long until the vehicle is held; noise of the
	// zero-velocity update; memory of where it stood.
	StandSpeed, StandSpeedPerNoise, StandSpeedTrack, StandHoldS, StandSD, StandRefS float64
	// Its end: distance, per noise; velocity per distance; variances.
	StandExitM, StandExitPerNoise, StandLeaveGain, StandLeaveVar, StandLeaveVelVar float64
	// Jumps of a held vehicle's fixes: distance, per squared second, per
	// noise, largest; how many fixes confirm one.
	JumpM, JumpAcc, JumpPerNoise, JumpMaxM, JumpCount float64
	// The stated position is put ahead by so much driving time: the receivers
	// known here show positions that are 10 to 140 ms ahead of their time.
	LeadS float64
	// The leash: its length for a standing vehicle, the speed that halves it,
	// the noise that halves it, and what noise adds to length and speed.
	LeashM, LeashSpeed, LeashNoise, LeashPerNoise, LeashSpeedPerNoise float64
	// How far from a fix that was used the stated position may be, at least
	// and per variance of its noise.
	NearM, NearPerVar float64
	// Speed below which no heading is stated.
	HeadingMinSpeed float64
	// Errors that the models don't see, see calibration.
	UnseenVelocityM, UnseenM, UnseenPerNoise   float64
	AccurateShare, UnseenPerClaim, UnseenWheel float64
}

var defaultTuning = tuning{
	QAlong: 1.12, QCross: 0.721, QAlongVelocity: 0.55, QCrossVelocity: 1.5, QAlongWheel: 0.3, QCrossWheel: 1, QStanding: 0.0151, QGap: 0.15,
	BiasM: 1.21, BiasVelocityM: 0.7, BiasPerNoise: 0.158, BiasPerNoiseVelocity: 0.08, BiasTauS: 13.7,
	NoiseFraction: 0.697, NoiseFloorM: 0.492, NoiseRate: 0.045, NoiseStartRate: 0.245, NoiseClip: 36.5, AccuracyRate: 0.05,
	DOF: 2.69, DOFVelocity: 4.5, StartVelVar: 150,
	TurnDistance: 4, TurnMinMPS: 8, TurnMaxS: 3, TurnCos2: 0.6, TurnMostMPS2: 30, TurnMostPerNoise: 5, TurnGain: 0.05, TurnClip: 8,
	SpeedSD: 0.04, SpeedPerAlong: 1, SpeedPerAcross: 0.01, CoursePerAlong: 0.25, CoursePerAcross: 0.01,
	HeadingSD: 0.007, LowSpeedSD: 3, WheelSD: 1,
	SpeedLagS: 0.3, CourseLagS: 0.05, SlowLagS: 0.6, SlowLagMPS: 6, LagMinDV: 0.5, LagForget: 0.826, LagPrior: 70,
	Gate: 21.4, StartGate: 12.6, GateM: 44, AltSpeed: 25,
	StandSpeed: 0.581, StandSpeedPerNoise: 0.199, StandSpeedTrack: 1.47, StandHoldS: 3.56, StandSD: 0.0105, StandRefS: 5.86,
	StandExitM: 2.32, StandExitPerNoise: 0.439, StandLeaveGain: 0.371, StandLeaveVar: 0.0168, StandLeaveVelVar: 2.32,
	JumpM: 1.19, JumpAcc: 1.6, JumpPerNoise: 1.74, JumpMaxM: 73, JumpCount: 7,
	LeadS:  -0.02,
	LeashM: 5, LeashSpeed: 3, LeashNoise: 0.7, LeashPerNoise: 0.5, LeashSpeedPerNoise: 1,
	NearM: 10, NearPerVar: 0.6,
	HeadingMinSpeed: 1,
	UnseenVelocityM: 0.75, UnseenM: 5.1, UnseenPerNoise: 1.5,
	AccurateShare: 0.6, UnseenPerClaim: 8, UnseenWheel: 2,
}
